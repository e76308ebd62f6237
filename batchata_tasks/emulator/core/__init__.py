"""What both emulated APIs share: state, clock, faults, books."""

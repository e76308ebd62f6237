"""The knobs of an emulator, and the client that turns them."""

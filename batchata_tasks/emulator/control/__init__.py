"""The control routes of an emulator, and the client that calls them."""

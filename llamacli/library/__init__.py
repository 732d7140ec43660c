"""Models on this computer and on the Hub."""

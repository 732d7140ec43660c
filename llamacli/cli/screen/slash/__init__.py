"""What a chat understands beside messages: one function per slash command, one file per subject."""

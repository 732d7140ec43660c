"""The chat's screen: input, live answer, slash commands."""

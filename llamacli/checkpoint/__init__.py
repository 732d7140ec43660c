"""What Hugging Face ships, as one value."""

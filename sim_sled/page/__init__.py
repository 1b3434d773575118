"""The live page: its files, what it says and shows things by, and a finished run as one file."""

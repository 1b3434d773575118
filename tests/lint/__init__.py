"""What `make lint` holds beside ruff, mypy and the import contracts: citations and the reading order."""

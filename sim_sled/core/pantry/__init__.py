"""The Crucible pantry: volumes that no instance has attached (SR 5.2)."""

"""What Nexus wants of a sled (`PUT /omicron-config`), and how it comes about (SR 3.1 to 3.3)."""

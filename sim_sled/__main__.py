"""`python -m sim_sled`: the same as the command `sim-sled`."""

from sim_sled.cli.main import main

if __name__ == "__main__":
    main()

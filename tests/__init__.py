"""The tests, a package of this name of their own: torch-fidelity installs another one."""

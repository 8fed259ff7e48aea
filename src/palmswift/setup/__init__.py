"""How quickstart.py makes an environment and tells its state; standard library only."""

"""Where members may be found: a list, a name in DNS, or Kubernetes. One Protocol for all (provider.py)."""

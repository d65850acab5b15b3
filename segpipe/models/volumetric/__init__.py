"""Networks that give each voxel of a volume a class."""

"""Networks that predict a class for each voxel of a volume."""

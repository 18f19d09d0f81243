"""What every room stands on: types, tree surgery by path, precision, meshes."""

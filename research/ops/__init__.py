"""Pure functions of arrays that models are made of; every fast path is chosen here, behind the plain function."""

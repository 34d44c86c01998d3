"""What designs cost: units put together for operations, layers, networks, and the folding that fits."""

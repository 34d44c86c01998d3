"""The study: integers, minifloats and k-hot numbers on four networks, by accuracy, memory and LUT."""

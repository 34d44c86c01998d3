"""The search over formats: which precision each layer gets, by accuracy and by what the hardware costs."""

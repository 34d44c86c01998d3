"""Post-training quantisation: from a trained float network to a quantised one, with no training.

``methods/`` holds what changes a network, ``calibrations/`` how a range of activations is chosen, one file
each, found by name. :class:`qhw.ptq.calibrated.Calibrated` applies them. What Brevitas's graph library does
on our networks, it does (equalization, SmoothQuant, GPTQ, GPFQ, bias correction, folding); each method says
in its docstring what of it is our own, and why.
"""

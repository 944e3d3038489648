"""Weights in fewer bits, applied to a model from outside: an author's code knows nothing of it.

choice.py    which scheme, if any: what the user asks for, what the checkpoint's config says, what the plugin allows
names.py     how the checkpoint calls each layer            attach.py  the scheme's methods put on the layers, and what stays
finish.py    each layer's weight made smaller as soon as it is filled
int8.py, compressed_tensors.py    our own schemes, found through their entry points as an outsider's are
"""

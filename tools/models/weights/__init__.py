"""Weight files of other programs, read without them: PyTorch, safetensors, Keras, Caffe, MatConvNet.

Nothing in such a file is executed. Every format ends in the same noun, a mapping of named ``Tensor``, of which only
those that are asked for are read; what they make of a VGG is the same for all formats.
"""

"""Drawing traffic signs with tensors: distances, noise, plates, scenes.

Every picture is a pure function of its key. Pixels are touched only by operations that round in one way
wherever in a tensor they happen (those of IEEE 754, one by one, and bilinear look-ups; no sine, exponential,
transform or product of matrices), so that an image's bits depend neither on its batch nor on the threads.
"""

"""Writes `imagenet_stem`: the encoder's check with the first layer of ResNets for large images, 7 x 7 with stride 2, then max pooling.

    pip install torch safetensors
    python make_stem.py rgb20
"""
import functools, os, sys
import torch
import network

os.makedirs(sys.argv[1], exist_ok=True)
torch.manual_seed(17); torch.set_default_dtype(torch.float64)
net = network.Encoder(2, 3, imagenet=True)
network.randomise(net)
# Sides that no stride divides: 33 to 17, 9, 5, 3, 2 rows and 30 to 15, 8, 4, 2, 1 columns.
images = network.images(6, 3, 36)[:, :, :33, :30]
network.write(sys.argv[1], "imagenet_stem", network.encoder_check(net, images), width=2, routes=network.ROUTES, bn_momentum=0.1, bn_epsilon=1e-5, clusters=network.KS)

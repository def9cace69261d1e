"""Reaching a node: what it boots with, the code it gets, the commands sent over SSH, the tmux it works in.

May not call AWS: a node is known here by its address and files. paramiko only in `ssh`, libtmux only in `tmux`.
"""

"""What runs on a node beside the training: it says how the node is, and puts into S3 whatever must not be lost.

Needs only the standard library and boto3's core (libtmux when something went wrong). It never starts, stops or slows
the training: that is for the scheduler, over SSH. No failure of S3 or of the agent itself may reach the training.
"""

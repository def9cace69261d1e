"""The AWS services, one file each: calls go out, `core.facts` come back. Translates errors; never decides.

boto3's core (botocore) and s3transfer are used here and nowhere else. Nothing is imported from them before a client is
wanted, so that commands which call no service stay quick.
"""

"""AWS on this machine: EC2, S3 and the rest over HTTP, and a real host for every instance, all on loopback.

`control` is what the other layers use: up, down, status, env, interrupt, kill, fault. Underneath lie two halves that
know each other only by `boundary`: the cloud (`cloud` and the modules around it: moto, and what moto lacks), and the
hosts (`machines`, `supervisor`, `image`, `imds`). `daemon` joins them in one process; `reaper` finds what is left when
that process was killed. No production code knows of any of this: it sees endpoints, addresses and ports.
"""

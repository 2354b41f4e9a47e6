"""The machine: RAM, vCPUs, clocks, devices, boot. The only package that imports Unicorn."""

"""What is normal, per workload, learned online. Pure: no I/O, no clock but the events' own."""

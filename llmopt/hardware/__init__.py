"""What this machine is and has free: probing, memory levels, the memory guard, proof of release."""

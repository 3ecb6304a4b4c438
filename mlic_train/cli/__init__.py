"""The commands of mlic-train. No other room imports this one."""

"""The paper's figures and tables from runs that can be stopped and go on: what to train, sweeps, drawing."""

"""`mlic-report`: what is in the data, what a run learned, how runs compare, each as one HTML file."""

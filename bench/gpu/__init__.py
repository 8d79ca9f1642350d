"""Model of the kernel on GPUs that need not be there: counted machine code and executed addresses, nothing measured."""

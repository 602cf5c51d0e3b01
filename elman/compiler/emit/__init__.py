"""Loop -> callable: reference.py is the meaning, in torch; cpu.py one kernel for the whole sequence, through LLVM."""

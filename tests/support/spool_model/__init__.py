"""A model of processes that share the directory of a spool, in which every interleaving can be tried.

kernel       files, names, descriptors and locks, as Linux has them
machine      runs simulated processes, one step at a time, as a schedule says
schedules    which schedules: all within bounds, random ones, or one again
programs     what the processes do, with the real code of the writer
reader       a reader that keeps the rules of deletion
world        puts these together, and says what must hold
mutants      writers with a mistake, each of which must be found
"""

"""``gen sweep``: many runs with other settings, of which the best is kept.

plugin  registers the command
command  the options of ``gen sweep``, and what it prints
start  checks the options, and makes the folder of a new sweep or opens that of an old one
space  the values to try, as a TOML file has them; default_space.toml and default_space_records.toml are built in
sweep  the loop over the trials, shared by several processes
study  the file with all trials; draws their values and decides which are pruned
trial  starts the child process of a trial, and exchanges lines with it
worker  the child process, which trains the trial
report  table and picture
"""

"""Files and folders: complete or not there, of bounded size, temporary, and of any name.

Others use `atomic.write_text`, `reading.read_file` and `folders.temporary_folder`.
May import no other room.

    atomic  writes files that are complete or not there
    temporary  locks of temporary files, and the removal of those of killed processes
    reading  reads files and data of bounded size
    folders  folders that environment variables choose
    file_names  shows and stores names of files that are not UTF-8
    cpu_quota  how many processors the quota of a container leaves
    escapes  escapes in texts that a user types
    versions  the versions of installed distributions
"""

"""What authors of models and trainers build on. (torch)"""

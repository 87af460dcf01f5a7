"""What `prepare` does with one evaluation before a model is loaded; it calls all of it. No torch.

adapters         target and baseline in object storage, verified byte by byte
dataset_files    local copies of the files that tasks name
question_reader  rows of files become `questions`, or are refused by name
tokenised        questions become tokens, as training saw them and as an engine is sent them
clusters         which rows say much the same: the units that are resampled, and what the target was trained on
task_rows        all of that for one task: the rows as they are asked
group_column     the column that figures are told apart by
task_store       the rows of all tasks under their content address; `stage` reads them there
"""

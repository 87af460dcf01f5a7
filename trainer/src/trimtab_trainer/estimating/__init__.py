"""What a run will take, told from config.json and the settings before anything is started. No torch.

dimensions  the sizes of a model: from the headers of its weights, or from config.json alone
devices     accelerators by name: memory, arithmetic, bandwidth
memory      the peak, part by part
speed       time and accelerator seconds
"""

"""What a run will take, told from config.json and the settings before anything is started. No torch.

dimensions  the sizes of a model: from the headers of its weights, or from config.json alone
devices     accelerators by name: memory, arithmetic, bandwidth
memory      the peak, part by part
division    whether the base model is divided among accelerators
speed       time and accelerator seconds
estimate    all of it, of a run on one accelerator or several
fitting     what of the pod that is to train will not hold it: what `prepare` warns of
command     `trimtab-trainer estimate`
"""

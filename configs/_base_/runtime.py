custom_imports = dict(imports=["repvgg_mm"], allow_failed_imports=False)
env_cfg = dict(
    cudnn_benchmark=True, mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0), dist_cfg=dict(backend="nccl")
)
custom_hooks = [dict(type="ReplaySeedHook")]
randomness = dict(seed=0)
log_level = "INFO"
load_from = None
resume = False

# tools/dist_train.sh configs/faster_rcnn_repvgg_a2_syncbn_coco.py 8
# Faster R-CNN on RepVGG-A2 with FPN, batch normalisation trained over all GPUs. Recipe: MMDetection's 1x schedule and
# augmentation.
# Not trained here (needs COCO and GPUs).
_base_ = ["faster_rcnn_repvgg_a2_coco.py"]
model = dict(backbone=dict(norm_cfg=dict(type="SyncBN"), norm_eval=False, frozen_stages=-1))

// The words of the monitor about devices. monitor/schema.h has the grammar.
#include "monitor/schema.h"

namespace platter::monitor {

const std::string_view kDeviceSchemaText = R"(
# ---- Devices
union DeviceOptions on driver driver:DeviceDriver id:str | virtio-blk=DeviceOptionsVirtioBlk
enum DeviceDriver virtio-blk
struct DeviceOptionsVirtioBlk addr:SocketAddress drive:str? logical_block_size:size?
    physical_block_size:size? min_io_size:size? opt_io_size:size? discard_granularity:size?
    write-cache:OnOffAuto? share-rw:bool? rerror:BlockdevOnError? werror:BlockdevOnError?
    cyls:uint32? heads:uint32? secs:uint32? serial:str? config-wce:bool? request-merging:bool?
    num-queues:uint16? queue-size:uint16? seg-max-adjust:bool? iothread:str?
    iothread-vq-mapping:[IOThreadVirtQueueMapping]? discard:bool? write-zeroes:bool?
    report-discard-granularity:bool? max-discard-sectors:uint32? max-write-zeroes-sectors:uint32?
    x-enable-wce-if-config-wce:bool? indirect_desc:bool? event_idx:bool? notify_on_empty:bool?
    any_layout:bool? packed:bool? in_order:bool?
enum BlockdevOnError report ignore enospc stop auto
struct IOThreadVirtQueueMapping iothread:str vqs:[uint16]?
refuse DeviceOptionsVirtioBlk bus class vectors ioeventfd page-per-vq ats modern-pio-notify
    disable-legacy disable-modern multifunction romfile rombar acpi-index
    because it belongs to the PCI device, which is the front-end's (vhost-user-blk-pci)
refuse DeviceOptionsVirtioBlk bootindex lcyls lheads lsecs use-started use-disabled-flag
    x-disable-legacy-check failover_pair_id because it belongs to the front-end's device
refuse DeviceOptionsVirtioBlk iommu_platform because addresses of the guest come as the front-end
    maps them
refuse DeviceOptionsVirtioBlk queue_reset because a front-end stops and starts a queue by itself
refuse DeviceOptionsVirtioBlk account-invalid account-failed stats-intervals
    because every request is accounted in one way
refuse DeviceOptionsVirtioBlk backend_defaults because block sizes are those that are given here
command device_add boxed DeviceOptions
command device_del id:str
event DEVICE_DELETED device:str? path:str

# ---- Whether they run
enum RunState running paused io-error
struct StatusInfo running:bool singlestep:bool!deprecated status:RunState
command query-status -> StatusInfo
command stop
command cont
event STOP
event RESUME
enum BlockErrorAction ignore report stop
enum IoOperationType read write
event BLOCK_IO_ERROR qom-path:str device:str node-name:str? operation:IoOperationType
    action:BlockErrorAction nospace:bool? reason:str
)";

}  // namespace platter::monitor

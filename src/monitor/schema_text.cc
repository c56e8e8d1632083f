// The words of the monitor. monitor/schema.h has the grammar.
#include "monitor/schema.h"

namespace platter::monitor {

const std::string_view kSchemaText = R"(
# ---- Control
enum QMPCapability oob
struct VersionInfo qemu:VersionTriple package:str
struct VersionTriple major:int minor:int micro:int
struct CommandInfo name:str
union SchemaInfo on meta-type name:str meta-type:SchemaMetaType features:[str]? |
    builtin=SchemaInfoBuiltin enum=SchemaInfoEnum array=SchemaInfoArray object=SchemaInfoObject
    alternate=SchemaInfoAlternate command=SchemaInfoCommand event=SchemaInfoEvent
enum SchemaMetaType builtin enum array object alternate command event
struct SchemaInfoBuiltin json-type:JSONType
enum JSONType string number int boolean null object array value
struct SchemaInfoEnum members:[SchemaInfoEnumMember] values:[str]!deprecated
struct SchemaInfoEnumMember name:str features:[str]?
struct SchemaInfoArray element-type:str
struct SchemaInfoObject members:[SchemaInfoObjectMember] tag:str?
    variants:[SchemaInfoObjectVariant]?
struct SchemaInfoObjectMember name:str type:str default:any? features:[str]?
struct SchemaInfoObjectVariant case:str type:str
struct SchemaInfoAlternate members:[SchemaInfoAlternateMember]
struct SchemaInfoAlternateMember type:str
struct SchemaInfoCommand arg-type:str ret-type:str allow-oob:bool?
struct SchemaInfoEvent arg-type:str
command qmp_capabilities enable:[QMPCapability]?
command query-version -> VersionInfo
command query-commands -> [CommandInfo]
command query-qmp-schema -> [SchemaInfo]
command quit

# ---- Nodes
union BlockdevOptions on driver driver:BlockdevDriver node-name:str?
    discard:BlockdevDiscardOptions? cache:BlockdevCacheOptions? read-only:bool?
    auto-read-only:bool? force-share:bool? detect-zeroes:BlockdevDetectZeroesOptions? |
    blkdebug=BlockdevOptionsBlkdebug copy-on-read=BlockdevOptionsCor file=BlockdevOptionsFile
    luks=BlockdevOptionsLUKS memory=BlockdevOptionsMemory null-co=BlockdevOptionsNull
    qcow2=BlockdevOptionsQcow2 raw=BlockdevOptionsRaw
enum BlockdevDriver blkdebug copy-on-read file luks memory null-co qcow2 raw
enum BlockdevDiscardOptions ignore unmap
struct BlockdevCacheOptions direct:bool? no-flush:bool?
enum BlockdevDetectZeroesOptions off on unmap
struct BlockdevOptionsBlkdebug image:BlockdevRef config:str? align:int? max-transfer:int32?
    opt-write-zero:int32? max-write-zero:int32? opt-discard:int32? max-discard:int32?
    inject-error:[BlkdebugInjectErrorOptions]? set-state:[BlkdebugSetStateOptions]?
alternate BlockdevRef BlockdevOptions str
struct BlkdebugInjectErrorOptions event:BlkdebugEvent state:int? iotype:BlkdebugIOType? errno:int?
    sector:int? once:bool? immediately:bool?
enum BlkdebugEvent l1_update l1_grow_alloc_table l1_grow_write_table l1_grow_activate_table
    l2_load l2_update l2_update_compressed l2_alloc_cow_read l2_alloc_write read_aio
    read_backing_aio read_compressed write_aio write_compressed vmstate_load vmstate_save cow_read
    cow_write reftable_load reftable_grow reftable_update refblock_load refblock_update
    refblock_update_part refblock_alloc refblock_alloc_hookup refblock_alloc_write
    refblock_alloc_write_blocks refblock_alloc_write_table refblock_alloc_switch_table
    cluster_alloc cluster_alloc_bytes cluster_free flush_to_os flush_to_disk pwritev_rmw_head
    pwritev_rmw_after_head pwritev_rmw_tail pwritev_rmw_after_tail pwritev pwritev_zero
    pwritev_done empty_image_prepare l1_shrink_write_table l1_shrink_free_l2_clusters cor_write
    cluster_alloc_space none
enum BlkdebugIOType read write write-zeroes discard flush block-status
struct BlkdebugSetStateOptions event:BlkdebugEvent state:int? new_state:int
enum BlockPermission consistent-read write write-unchanged resize
struct BlockdevOptionsCor file:BlockdevRef
struct BlockdevOptionsFile filename:str locking:OnOffAuto? aio:BlockdevAioOptions?
    !dynamic-auto-read-only
enum OnOffAuto auto on off
enum BlockdevAioOptions threads native io_uring
struct BlockdevOptionsLUKS file:BlockdevRef key-secret:str?
struct BlockdevOptionsMemory size:size? request-alignment:size? zoned:BlockdevZoned?
    zone-size:size? zone-capacity:size? conventional-zones:int? max-open-zones:int?
    max-active-zones:int? max-append-bytes:size?
enum BlockdevZoned off host-managed host-aware
struct BlockdevOptionsNull size:int? latency-ns:uint64? read-zeroes:bool?
struct BlockdevOptionsQcow2 file:BlockdevRef backing:BlockdevRefOrNull? lazy-refcounts:bool?
    pass-discard-request:bool? pass-discard-snapshot:bool? pass-discard-other:bool?
    discard-no-unref:bool? overlap-check:Qcow2OverlapChecks? cache-size:int? l2-cache-size:int?
    l2-cache-entry-size:int? refcount-cache-size:int? cache-clean-interval:int?
    encrypt:BlockdevQcow2Encryption? data-file:BlockdevRef?
alternate BlockdevRefOrNull BlockdevOptions str null
alternate Qcow2OverlapChecks Qcow2OverlapCheckFlags Qcow2OverlapCheckMode
struct Qcow2OverlapCheckFlags template:Qcow2OverlapCheckMode? main-header:bool? active-l1:bool?
    active-l2:bool? refcount-table:bool? refcount-block:bool? snapshot-table:bool?
    inactive-l1:bool? inactive-l2:bool? bitmap-directory:bool?
enum Qcow2OverlapCheckMode none constant cached all
union BlockdevQcow2Encryption on format format:BlockdevQcow2EncryptionFormat |
    aes=QCryptoBlockOptionsQCow luks=QCryptoBlockOptionsLUKS
enum BlockdevQcow2EncryptionFormat aes luks
struct QCryptoBlockOptionsQCow key-secret:str?
struct QCryptoBlockOptionsLUKS key-secret:str?
struct BlockdevOptionsRaw file:BlockdevRef offset:int? size:int?
struct BlockDeviceInfo file:str node-name:str? ro:bool drv:str backing_file:str?
    backing_file_depth:int encrypted:bool detect_zeroes:BlockdevDetectZeroesOptions bps:int
    bps_rd:int bps_wr:int iops:int iops_rd:int iops_wr:int image:ImageInfo bps_max:int?
    bps_rd_max:int? bps_wr_max:int? iops_max:int? iops_rd_max:int? iops_wr_max:int?
    bps_max_length:int? bps_rd_max_length:int? bps_wr_max_length:int? iops_max_length:int?
    iops_rd_max_length:int? iops_wr_max_length:int? iops_size:int? group:str?
    cache:BlockdevCacheInfo write_threshold:int dirty-bitmaps:[BlockDirtyInfo]?
struct ImageInfo filename:str format:str dirty-flag:bool? actual-size:int? virtual-size:int
    cluster-size:int? encrypted:bool? compressed:bool? backing-filename:str?
    full-backing-filename:str? backing-filename-format:str? snapshots:[SnapshotInfo]?
    backing-image:ImageInfo? format-specific:ImageInfoSpecific?
struct SnapshotInfo id:str name:str vm-state-size:int date-sec:int date-nsec:int vm-clock-sec:int
    vm-clock-nsec:int icount:int?
union ImageInfoSpecific on type type:ImageInfoSpecificKind | qcow2=ImageInfoSpecificQCow2Wrapper
    luks=ImageInfoSpecificLUKSWrapper
enum ImageInfoSpecificKind qcow2 luks
struct ImageInfoSpecificQCow2Wrapper data:ImageInfoSpecificQCow2
struct ImageInfoSpecificQCow2 compat:str data-file:str? data-file-raw:bool? extended-l2:bool?
    lazy-refcounts:bool? corrupt:bool? refcount-bits:int encrypt:ImageInfoSpecificQCow2Encryption?
    bitmaps:[Qcow2BitmapInfo]? compression-type:Qcow2CompressionType
union ImageInfoSpecificQCow2Encryption on format format:BlockdevQcow2EncryptionFormat |
    luks=QCryptoBlockInfoLUKS
struct QCryptoBlockInfoLUKS cipher-alg:QCryptoCipherAlgorithm cipher-mode:QCryptoCipherMode
    ivgen-alg:QCryptoIVGenAlgorithm ivgen-hash-alg:QCryptoHashAlgorithm?
    hash-alg:QCryptoHashAlgorithm payload-offset:int master-key-iters:int uuid:str
    slots:[QCryptoBlockInfoLUKSSlot]
enum QCryptoCipherAlgorithm aes-128 aes-192 aes-256 des 3des cast5-128 serpent-128 serpent-192
    serpent-256 twofish-128 twofish-192 twofish-256
enum QCryptoCipherMode ecb cbc xts ctr
enum QCryptoIVGenAlgorithm plain plain64 essiv
enum QCryptoHashAlgorithm md5 sha1 sha224 sha256 sha384 sha512 ripemd160
struct QCryptoBlockInfoLUKSSlot active:bool iters:int? stripes:int? key-offset:int
struct Qcow2BitmapInfo name:str granularity:int flags:[Qcow2BitmapInfoFlags]
enum Qcow2BitmapInfoFlags in-use auto
enum Qcow2CompressionType zlib zstd
struct ImageInfoSpecificLUKSWrapper data:QCryptoBlockInfoLUKS
struct BlockdevCacheInfo writeback:bool direct:bool no-flush:bool
struct BlockDirtyInfo name:str? count:int granularity:int recording:bool busy:bool persistent:bool
    inconsistent:bool?
struct BlockInfo device:str qdev:str? type:str removable:bool locked:bool
    inserted:BlockDeviceInfo? tray_open:bool? io-status:BlockDeviceIoStatus?
enum BlockDeviceIoStatus ok failed nospace
struct BlockStats device:str? qdev:str? node-name:str? stats:BlockDeviceStats
    driver-specific:BlockStatsSpecific? parent:BlockStats? backing:BlockStats?
struct BlockDeviceStats rd_bytes:int wr_bytes:int zone_append_bytes:int unmap_bytes:int
    rd_operations:int wr_operations:int zone_append_operations:int flush_operations:int
    unmap_operations:int rd_total_time_ns:int wr_total_time_ns:int zone_append_total_time_ns:int
    flush_total_time_ns:int unmap_total_time_ns:int wr_highest_offset:int rd_merged:int
    wr_merged:int zone_append_merged:int unmap_merged:int idle_time_ns:int?
    failed_rd_operations:int failed_wr_operations:int failed_zone_append_operations:int
    failed_flush_operations:int failed_unmap_operations:int invalid_rd_operations:int
    invalid_wr_operations:int invalid_zone_append_operations:int invalid_flush_operations:int
    invalid_unmap_operations:int account_invalid:bool account_failed:bool
    timed_stats:[BlockDeviceTimedStats] rd_latency_histogram:BlockLatencyHistogramInfo?
    wr_latency_histogram:BlockLatencyHistogramInfo?
    zone_append_latency_histogram:BlockLatencyHistogramInfo?
    flush_latency_histogram:BlockLatencyHistogramInfo?
struct BlockDeviceTimedStats interval_length:int min_rd_latency_ns:int max_rd_latency_ns:int
    avg_rd_latency_ns:int min_wr_latency_ns:int max_wr_latency_ns:int avg_wr_latency_ns:int
    min_flush_latency_ns:int max_flush_latency_ns:int avg_flush_latency_ns:int
    avg_rd_queue_depth:number avg_wr_queue_depth:number
struct BlockLatencyHistogramInfo boundaries:[int] bins:[int]
union BlockStatsSpecific on driver driver:BlockdevDriver | file=BlockStatsSpecificFile
struct BlockStatsSpecificFile discard-nb-ok:int discard-nb-failed:int discard-bytes-ok:int
struct XDbgBlockGraph nodes:[XDbgBlockGraphNode] edges:[XDbgBlockGraphEdge]
struct XDbgBlockGraphNode id:int type:XDbgBlockGraphNodeType name:str
enum XDbgBlockGraphNodeType block-backend block-job block-driver
struct XDbgBlockGraphEdge parent:int child:int name:str perm:[BlockPermission]
    shared-perm:[BlockPermission]
command blockdev-add boxed BlockdevOptions
command blockdev-del node-name:str
command blockdev-reopen options:[BlockdevOptions]
command query-named-block-nodes flat:bool? -> [BlockDeviceInfo]
command query-block -> [BlockInfo]
command query-blockstats query-nodes:bool? -> [BlockStats]
command block-latency-histogram-set id:str boundaries:[uint64]? boundaries-read:[uint64]?
    boundaries-write:[uint64]? boundaries-zap:[uint64]? boundaries-flush:[uint64]?
alternate StrOrNull str null
command change-backing-file device:str image-node-name:str backing-file:str
command x-blockdev-change parent:str child:str? node:str? !unstable
command x-blockdev-set-iothread node-name:str iothread:StrOrNull force:bool? !unstable
command x-debug-query-block-graph -> XDbgBlockGraph !unstable
command block_resize device:str? node-name:str? size:int
command block-set-write-threshold node-name:str write-threshold:uint64
event BLOCK_WRITE_THRESHOLD node-name:str amount-exceeded:uint64 write-threshold:uint64

# ---- Dirty bitmaps
struct BlockDirtyBitmapAdd node:str name:str granularity:uint32? persistent:bool? disabled:bool?
struct BlockDirtyBitmap node:str name:str
struct BlockDirtyBitmapMerge node:str target:str bitmaps:[BlockDirtyBitmapOrStr]
alternate BlockDirtyBitmapOrStr str BlockDirtyBitmap
command block-dirty-bitmap-add boxed BlockDirtyBitmapAdd
command block-dirty-bitmap-remove boxed BlockDirtyBitmap
command block-dirty-bitmap-clear boxed BlockDirtyBitmap
command block-dirty-bitmap-enable boxed BlockDirtyBitmap
command block-dirty-bitmap-disable boxed BlockDirtyBitmap
command block-dirty-bitmap-merge boxed BlockDirtyBitmapMerge
struct BlockDirtyBitmapSha256 sha256:str
command x-debug-block-dirty-bitmap-sha256 boxed BlockDirtyBitmap -> BlockDirtyBitmapSha256 !unstable

# ---- Snapshots and transactions
struct BlockdevSnapshotInternal device:str name:str
struct BlockdevSnapshot node:str overlay:str
struct BlockdevSnapshotSync device:str? node-name:str? snapshot-file:str snapshot-node-name:str?
    format:str? mode:NewImageMode?
enum NewImageMode existing absolute-paths
union TransactionAction on type type:TransactionActionKind | abort=AbortWrapper
    block-dirty-bitmap-add=BlockDirtyBitmapAddWrapper
    block-dirty-bitmap-remove=BlockDirtyBitmapWrapper
    block-dirty-bitmap-clear=BlockDirtyBitmapWrapper
    block-dirty-bitmap-enable=BlockDirtyBitmapWrapper
    block-dirty-bitmap-disable=BlockDirtyBitmapWrapper
    block-dirty-bitmap-merge=BlockDirtyBitmapMergeWrapper
    blockdev-snapshot=BlockdevSnapshotWrapper
    blockdev-snapshot-internal-sync=BlockdevSnapshotInternalWrapper
    blockdev-snapshot-sync=BlockdevSnapshotSyncWrapper
enum TransactionActionKind abort block-dirty-bitmap-add block-dirty-bitmap-remove
    block-dirty-bitmap-clear block-dirty-bitmap-enable block-dirty-bitmap-disable
    block-dirty-bitmap-merge blockdev-snapshot blockdev-snapshot-internal-sync
    blockdev-snapshot-sync
struct AbortWrapper data:Abort
struct Abort
struct BlockDirtyBitmapAddWrapper data:BlockDirtyBitmapAdd
struct BlockDirtyBitmapWrapper data:BlockDirtyBitmap
struct BlockDirtyBitmapMergeWrapper data:BlockDirtyBitmapMerge
struct BlockdevSnapshotWrapper data:BlockdevSnapshot
struct BlockdevSnapshotSyncWrapper data:BlockdevSnapshotSync
struct BlockdevSnapshotInternalWrapper data:BlockdevSnapshotInternal
struct TransactionProperties completion-mode:ActionCompletionMode?
enum ActionCompletionMode individual grouped
command blockdev-snapshot-internal-sync boxed BlockdevSnapshotInternal
command blockdev-snapshot-delete-internal-sync device:str id:str? name:str? -> SnapshotInfo
command blockdev-snapshot-sync boxed BlockdevSnapshotSync
command blockdev-snapshot boxed BlockdevSnapshot !allow-write-only-overlay
command transaction actions:[TransactionAction] properties:TransactionProperties?

# ---- Objects
union ObjectOptions on qom-type qom-type:ObjectType id:str | authz-list=AuthZListProperties
    authz-listfile=AuthZListFileProperties authz-simple=AuthZSimpleProperties
    iothread=IothreadProperties main-loop=MainLoopProperties
    pr-manager-helper=PrManagerHelperProperties secret=SecretProperties
    secret_keyring=SecretKeyringProperties throttle-group=ThrottleGroupProperties
    tls-creds-anon=TlsCredsAnonProperties tls-creds-psk=TlsCredsPskProperties
    tls-creds-x509=TlsCredsX509Properties
enum ObjectType authz-list authz-listfile authz-simple iothread main-loop pr-manager-helper secret
    secret_keyring throttle-group tls-creds-anon tls-creds-psk tls-creds-x509
struct AuthZListProperties policy:QAuthZListPolicy? rules:[QAuthZListRule]?
enum QAuthZListPolicy deny allow
struct QAuthZListRule match:str policy:QAuthZListPolicy format:QAuthZListFormat?
enum QAuthZListFormat exact glob
struct AuthZListFileProperties filename:str refresh:bool?
struct AuthZSimpleProperties identity:str
struct MainLoopProperties aio-max-batch:int? thread-pool-min:int? thread-pool-max:int?
struct PrManagerHelperProperties path:str
struct SecretKeyringProperties loaded:bool?!deprecated format:QCryptoSecretFormat? keyid:str?
    iv:str? serial:int32
enum QCryptoTLSCredsEndpoint client server
struct TlsCredsAnonProperties verify-peer:bool? dir:str? endpoint:QCryptoTLSCredsEndpoint?
    priority:str? loaded:bool?!deprecated
struct TlsCredsPskProperties verify-peer:bool? dir:str? endpoint:QCryptoTLSCredsEndpoint?
    priority:str? loaded:bool?!deprecated username:str?
struct TlsCredsX509Properties verify-peer:bool? dir:str? endpoint:QCryptoTLSCredsEndpoint?
    priority:str? loaded:bool?!deprecated sanity-check:bool? passwordid:str?
struct IothreadProperties aio-max-batch:int? thread-pool-min:int? thread-pool-max:int?
    poll-max-ns:int? poll-grow:int? poll-shrink:int?
struct SecretProperties loaded:bool?!deprecated format:QCryptoSecretFormat? keyid:str? iv:str?
    data:str? file:str?
enum QCryptoSecretFormat raw base64
struct ThrottleGroupProperties limits:ThrottleLimits? x-iops-total:int?!unstable
    x-iops-total-max:int?!unstable x-iops-total-max-length:int?!unstable x-iops-read:int?!unstable
    x-iops-read-max:int?!unstable x-iops-read-max-length:int?!unstable x-iops-write:int?!unstable
    x-iops-write-max:int?!unstable x-iops-write-max-length:int?!unstable x-bps-total:int?!unstable
    x-bps-total-max:int?!unstable x-bps-total-max-length:int?!unstable x-bps-read:int?!unstable
    x-bps-read-max:int?!unstable x-bps-read-max-length:int?!unstable x-bps-write:int?!unstable
    x-bps-write-max:int?!unstable x-bps-write-max-length:int?!unstable x-iops-size:int?!unstable
struct ThrottleLimits iops-total:int? iops-total-max:int? iops-total-max-length:int?
    iops-read:int? iops-read-max:int? iops-read-max-length:int? iops-write:int?
    iops-write-max:int? iops-write-max-length:int? bps-total:int? bps-total-max:int?
    bps-total-max-length:int? bps-read:int? bps-read-max:int? bps-read-max-length:int?
    bps-write:int? bps-write-max:int? bps-write-max-length:int? iops-size:int?
struct ObjectPropertyInfo name:str type:str description:str? default-value:any?
command object-add boxed ObjectOptions
command object-del id:str
command qom-list path:str -> [ObjectPropertyInfo]
command qom-get path:str property:str -> any
command qom-set path:str property:str value:any
struct ObjectTypeInfo name:str abstract:bool? parent:str?
command qom-list-types implements:str? abstract:bool? -> [ObjectTypeInfo]
command qom-list-properties typename:str -> [ObjectPropertyInfo]

# ---- Character devices
struct ChardevInfo label:str filename:str frontend-open:bool
struct ChardevBackendInfo name:str
union ChardevBackend on type type:ChardevBackendKind | file=ChardevFileWrapper
    pipe=ChardevHostdevWrapper socket=ChardevSocketWrapper null=ChardevCommonWrapper
    stdio=ChardevStdioWrapper ringbuf=ChardevRingbufWrapper memory=ChardevRingbufWrapper
enum ChardevBackendKind file pipe socket null stdio ringbuf memory
struct ChardevFileWrapper data:ChardevFile
struct ChardevFile logfile:str? logappend:bool? in:str? out:str append:bool?
struct ChardevHostdevWrapper data:ChardevHostdev
struct ChardevHostdev logfile:str? logappend:bool? device:str
struct ChardevRingbufWrapper data:ChardevRingbuf
struct ChardevRingbuf logfile:str? logappend:bool? size:int?
struct ChardevSocketWrapper data:ChardevSocket
struct ChardevSocket logfile:str? logappend:bool? addr:SocketAddressLegacy tls-creds:str?
    tls-authz:str? server:bool? wait:bool? nodelay:bool? telnet:bool? tn3270:bool? websocket:bool?
    reconnect:int?
union SocketAddressLegacy on type type:SocketAddressType | inet=InetSocketAddressWrapper
    unix=UnixSocketAddressWrapper vsock=VsockSocketAddressWrapper fd=FdSocketAddressWrapper
enum SocketAddressType inet unix vsock fd
struct InetSocketAddressWrapper data:InetSocketAddress
struct InetSocketAddress host:str port:str numeric:bool? to:uint16? ipv4:bool? ipv6:bool?
    keep-alive:bool? mptcp:bool?
struct UnixSocketAddressWrapper data:UnixSocketAddress
struct UnixSocketAddress path:str abstract:bool? tight:bool?
struct VsockSocketAddressWrapper data:VsockSocketAddress
struct VsockSocketAddress cid:str port:str
struct FdSocketAddressWrapper data:FdSocketAddress
struct FdSocketAddress str:str
struct ChardevCommonWrapper data:ChardevCommon
struct ChardevCommon logfile:str? logappend:bool?
struct ChardevStdioWrapper data:ChardevStdio
struct ChardevStdio logfile:str? logappend:bool? signal:bool?
struct ChardevReturn pty:str?
command query-chardev -> [ChardevInfo]
command query-chardev-backends -> [ChardevBackendInfo]
command chardev-add id:str backend:ChardevBackend -> ChardevReturn
command chardev-change id:str backend:ChardevBackend -> ChardevReturn
command chardev-remove id:str
command chardev-send-break id:str
enum DataFormat utf8 base64
command ringbuf-write device:str data:str format:DataFormat?
command ringbuf-read device:str size:int format:DataFormat? -> str

# ---- Exports
union BlockExportOptions on type type:BlockExportType id:str fixed-iothread:bool? iothread:str?
    node-name:str writable:bool? writethrough:bool? | nbd=BlockExportOptionsNbd
    vhost-user-blk=BlockExportOptionsVhostUserBlk fuse=BlockExportOptionsFuse
    vduse-blk=BlockExportOptionsVduseBlk
enum BlockExportType nbd vhost-user-blk fuse vduse-blk
struct BlockExportOptionsNbd name:str? description:str? bitmaps:[BlockDirtyBitmapOrStr]?
    allocation-depth:bool?
struct BlockExportOptionsVhostUserBlk addr:SocketAddress logical-block-size:size?
    num-queues:uint16?
union SocketAddress on type type:SocketAddressType | inet=InetSocketAddress unix=UnixSocketAddress
    vsock=VsockSocketAddress fd=FdSocketAddress
struct BlockExportOptionsFuse mountpoint:str growable:bool? allow-other:FuseExportAllowOther?
enum FuseExportAllowOther off on auto
struct BlockExportOptionsVduseBlk name:str num-queues:uint16? queue-size:uint16?
    logical-block-size:size? serial:str?
enum BlockExportRemoveMode safe hard
struct BlockExportInfo id:str type:BlockExportType node-name:str shutting-down:bool
command block-export-add boxed BlockExportOptions
command block-export-del id:str mode:BlockExportRemoveMode?
command query-block-exports -> [BlockExportInfo]
event BLOCK_EXPORT_DELETED id:str
command nbd-server-start addr:SocketAddressLegacy tls-creds:str? tls-authz:str?
    max-connections:uint32? handshake-max-seconds:uint32?
command nbd-server-stop
command nbd-server-add name:str? description:str? device:str writable:bool? bitmap:str? !deprecated
command nbd-server-remove name:str mode:BlockExportRemoveMode? !deprecated

# ---- Jobs: there are none yet
struct JobInfo id:str type:JobType status:JobStatus current-progress:int total-progress:int
    error:str?
enum JobType commit stream mirror backup create amend snapshot-load snapshot-save snapshot-delete
enum JobStatus undefined created running paused ready standby waiting pending aborting concluded
    null
struct BlockJobInfo type:str device:str len:int offset:int busy:bool paused:bool speed:int
    io-status:BlockDeviceIoStatus ready:bool status:JobStatus auto-finalize:bool auto-dismiss:bool
    error:str?
command query-jobs -> [JobInfo]
command query-block-jobs -> [BlockJobInfo]

# ---- What the command line says besides
enum MonitorMode readline control
struct NbdServerOptions addr:SocketAddress tls-creds:str? tls-authz:str? max-connections:uint32?
    handshake-max-seconds:uint32?
struct MonitorOptions chardev:str id:str? mode:MonitorMode? pretty:bool?
)";

}  // namespace platter::monitor

// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note
//! include/uapi/linux/vfio_type1v3.h for the crate vfio-ioctls (or vfio-bindings): structures,
//! numbers, and what a program does with them. It needs no other crate; the ioctl itself is
//! the caller's, `ioctl(container, VFIO_IOMMU_TYPE1V3_BATCH, &batch)`.
//!
//! In `VfioContainer`: `check_extension()` and `set_iommu()` let `VFIO_TYPE1V3_IOMMU` pass;
//! `set_iommu()` then asks for the capabilities once, see [`Capabilities`].

/// The argument of VFIO_SET_IOMMU and VFIO_CHECK_EXTENSION
pub const VFIO_TYPE1V3_IOMMU: u32 = 100_001;

/// _IO(VFIO_TYPE, VFIO_BASE + 50)
pub const VFIO_IOMMU_TYPE1V3_BATCH: u64 = 0x3b96;
pub const VFIO_IOMMU_TYPE1V3_BATCH_MAX: usize = 1024;
pub const VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE: u32 = 1 << 0;
pub const VFIO_IOMMU_TYPE1V3_ENTRY_UNMAP: u32 = 1 << 16;

pub const VFIO_DMA_MAP_GRANULE_ORDER_MAX: u32 = 51;

/// A field of the flags of a map: IOMMU pages are at most 2^order CPU pages large.
pub const fn vfio_dma_map_granule(order: u32) -> u32 {
    (1 << 31) | (order << 25)
}

pub const VFIO_DMA_MAP_FLAG_SMALL_PAGES: u32 = vfio_dma_map_granule(0);

/// One map or unmap of a batch
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct vfio_iommu_type1v3_batch_entry {
    pub iova: u64,
    pub size: u64,
    pub vaddr: u64,
    pub flags: u32,
    /// Set on return: 0 or a negative errno
    pub result: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vfio_iommu_type1v3_batch {
    pub argsz: u32,
    pub flags: u32,
    pub nr_entries: u32,
    pub __reserved: u32,
    pub entries: u64,
}

impl vfio_iommu_type1v3_batch {
    /// A batch that does not end at a failure. It is good as long as `entries` is, of which
    /// at most VFIO_IOMMU_TYPE1V3_BATCH_MAX are taken. What the ioctl returns is how many have
    /// failed; -1 means that none has been tried.
    pub fn of(entries: &mut [vfio_iommu_type1v3_batch_entry]) -> Self {
        Self {
            argsz: core::mem::size_of::<Self>() as u32,
            flags: VFIO_IOMMU_TYPE1V3_BATCH_FLAG_CONTINUE,
            nr_entries: entries.len().min(VFIO_IOMMU_TYPE1V3_BATCH_MAX) as u32,
            __reserved: 0,
            entries: entries.as_mut_ptr() as u64,
        }
    }
}

pub const VFIO_IOMMU_TYPE1V3_INFO_CAP_USAGE: u16 = 0x5433;
pub const VFIO_IOMMU_TYPE1V3_INFO_CAP_DIRTY: u16 = 0x5434;
pub const VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE: u16 = 0x5435;

/// As in linux/vfio.h, and in vfio-bindings, whose structure may take its place
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vfio_info_cap_header {
    pub id: u16,
    pub version: u16,
    pub next: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vfio_iommu_type1v3_info_cap_usage {
    pub header: vfio_info_cap_header,
    pub mapped_pages: u64,
    pub pinned_pages: u64,
    pub store_bytes: u64,
    pub charged_pages: u64,
    pub alone_pages: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vfio_iommu_type1v3_info_cap_dirty {
    pub header: vfio_info_cap_header,
    /// One of VFIO_IOMMU_TYPE1V3_DIRTY_PINNED, _ALL, _HARDWARE
    pub source: u32,
    /// Since version 2: the VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_* that can be used
    pub flags: u32,
}

pub const VFIO_IOMMU_TYPE1V3_DIRTY_PINNED: u32 = 0;
pub const VFIO_IOMMU_TYPE1V3_DIRTY_ALL: u32 = 1;
pub const VFIO_IOMMU_TYPE1V3_DIRTY_HARDWARE: u32 = 2;

/// With VFIO_IOMMU_DIRTY_PAGES_FLAG_START
pub const VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_PINNED: u32 = 1 << 16;
pub const VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_HARDWARE: u32 = 1 << 17;
/// With VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
pub const VFIO_IOMMU_TYPE1V3_DIRTY_FLAG_OR: u32 = 1 << 18;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct vfio_iommu_type1v3_info_cap_granule {
    pub header: vfio_info_cap_header,
    pub min_order: u32,
    pub max_order: u32,
}

/// What a container can do, from what VFIO_IOMMU_GET_INFO wrote into `info`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// VFIO_IOMMU_TYPE1V3_BATCH, and unmaps of any page
    pub batch: bool,
    /// Orders of granules, smallest and largest
    pub granule: Option<(u32, u32)>,
}

impl Capabilities {
    /// `info` is a struct vfio_iommu_type1_info with what follows it. Offsets that lead
    /// outside, or backwards, end the list.
    pub fn find(info: &[u8]) -> Self {
        const FLAG_CAPS: u32 = 1 << 1;
        let half = |at: usize| info.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        let word = |at: usize| {
            info.get(at..at + 4)
                .map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
        };
        let mut found = Self::default();

        // argsz, flags, iova_pgsizes, cap_offset
        if word(4).unwrap_or(0) & FLAG_CAPS == 0 {
            return found;
        }
        let mut at = word(16).unwrap_or(0) as usize;
        while at != 0 {
            match (half(at), half(at + 2)) {
                // granules came with the batch as it is now
                (Some(VFIO_IOMMU_TYPE1V3_INFO_CAP_GRANULE), Some(1)) => {
                    found.batch = true;
                    found.granule = word(at + 8).zip(word(at + 12));
                }
                _ => (),
            }
            let next = word(at + 4).unwrap_or(0) as usize;
            if next <= at {
                break;
            }
            at = next;
        }
        found
    }
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<vfio_iommu_type1v3_batch_entry>() == 32);
    assert!(offset_of!(vfio_iommu_type1v3_batch_entry, vaddr) == 16);
    assert!(offset_of!(vfio_iommu_type1v3_batch_entry, flags) == 24);
    assert!(offset_of!(vfio_iommu_type1v3_batch_entry, result) == 28);
    assert!(size_of::<vfio_iommu_type1v3_batch>() == 24);
    assert!(offset_of!(vfio_iommu_type1v3_batch, nr_entries) == 8);
    assert!(offset_of!(vfio_iommu_type1v3_batch, entries) == 16);
    assert!(size_of::<vfio_info_cap_header>() == 8);
    assert!(offset_of!(vfio_info_cap_header, version) == 2);
    assert!(offset_of!(vfio_info_cap_header, next) == 4);
    assert!(size_of::<vfio_iommu_type1v3_info_cap_dirty>() == 16);
    assert!(offset_of!(vfio_iommu_type1v3_info_cap_dirty, flags) == 12);
    assert!(size_of::<vfio_iommu_type1v3_info_cap_usage>() == 48);
    assert!(offset_of!(vfio_iommu_type1v3_info_cap_usage, mapped_pages) == 8);
    assert!(size_of::<vfio_iommu_type1v3_info_cap_granule>() == 16);
    assert!(offset_of!(vfio_iommu_type1v3_info_cap_granule, min_order) == 8);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn info(caps: &[(u16, [u32; 2])]) -> Vec<u8> {
        let mut bytes = vec![0; 24];
        bytes[4] = 2;
        bytes[16] = if caps.is_empty() { 0 } else { 24 };
        for (i, (id, values)) in caps.iter().enumerate() {
            let next = if i + 1 == caps.len() { 0 } else { bytes.len() as u32 + 16 };
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend(next.to_ne_bytes());
            values.iter().for_each(|v| bytes.extend(v.to_ne_bytes()));
        }
        bytes
    }

    #[test]
    fn capabilities() {
        assert_eq!(Capabilities::find(&info(&[])), Capabilities::default());
        assert_eq!(Capabilities::find(&[]), Capabilities::default());
        let all = info(&[(1, [0, 0]), (0x5433, [0, 0]), (0x5435, [0, 18])]);
        let found = Capabilities::find(&all);
        assert!(found.batch);
        assert_eq!(found.granule, Some((0, 18)));
        // cut anywhere, it is read no further than it goes
        for n in 0..all.len() {
            let _ = Capabilities::find(&all[..n]);
        }
    }

    #[test]
    fn granule() {
        assert_eq!(vfio_dma_map_granule(9), 0x9200_0000);
        assert_eq!(vfio_dma_map_granule(VFIO_DMA_MAP_GRANULE_ORDER_MAX) >> 25, 0x73);
    }

    #[test]
    fn batch() {
        let mut entries = [vfio_iommu_type1v3_batch_entry::default(); 3];
        let batch = vfio_iommu_type1v3_batch::of(&mut entries);
        assert_eq!((batch.argsz, batch.nr_entries), (24, 3));
    }
}

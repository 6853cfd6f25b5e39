//! Decoded images in the order in which they arrive, in memory or in a file of the cache.

use std::sync::Arc;

use super::block::Block;
use super::cache::{Part, Seen};
use super::images::Images;
use crate::error::{Error, Result};
use crate::memory;

/// Memory that is claimed at a time for decoded images, in bytes. It takes room as images arrive; an
/// allocation of this size can grow without a copy.
const CLAIM: usize = 1 << 30;

/// Decoded images of a data set. So memory is taken by what is there, not by what an archive lists.
pub(super) struct Arrived {
    values: Values,
    /// Place in the listing of each image.
    places: Vec<usize>,
    /// Number of images that are listed.
    len: usize,
    /// Why images of a large set are in memory all the same.
    pub(super) uncached: Option<Error>,
}

/// Images in the order of their places.
pub(super) struct Sorted {
    pub(super) images: [Images; 3],
    /// The file in which they are, where they are in one.
    pub(super) part: Option<Box<Part>>,
}

enum Values {
    Memory(Vec<u8>),
    File(Box<Part>),
}

impl Arrived {
    pub(super) fn new(len: usize) -> Self {
        Self {
            values: Values::Memory(Vec::new()),
            places: Vec::new(),
            len,
            uncached: None,
        }
    }

    /// Number of images that are there.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Continues in a file of the cache, with the images that it has. Nothing has arrived before.
    pub(super) fn continue_in(&mut self, part: Box<Part>) {
        self.places = part.seen().iter().map(|seen| seen.place).collect();
        self.values = Values::File(part);
    }

    /// Places that are there.
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// Adds an image.
    ///
    /// # Errors
    /// [`Error::Data`] where memory does not suffice; [`Error::Io`].
    pub(super) fn add(&mut self, seen: Seen, image: &[u8], source: &str) -> Result<()> {
        self.places.push(seen.place);
        let values = match &mut self.values {
            Values::Memory(values) => values,
            Values::File(part) => {
                let added = part.add(seen, image);
                return added.or_else(|error| self.hold(image.len(), error));
            }
        };
        if values.capacity() - values.len() < image.len() {
            let missing = self.len.saturating_sub(self.places.len() - 1);
            let step = CLAIM.max(values.len());
            let more = missing.saturating_mul(image.len()).min(step);
            if values.try_reserve_exact(more.max(image.len())).is_err() {
                return Err(Error::data(
                    source,
                    format!(
                        "expected memory for {} images of {} bytes, found too little",
                        self.len,
                        image.len()
                    ),
                    "use fewer images, or smaller ones: --set 'data.size = 64'",
                ));
            }
        }
        values.extend_from_slice(image);
        Ok(())
    }

    /// Lets all values go: images are only counted from here on.
    pub(super) fn forget(&mut self) {
        self.replace(Vec::new());
    }

    /// Goes on in memory with these values, and without a file.
    fn replace(&mut self, values: Vec<u8>) {
        if let Values::File(part) = std::mem::replace(&mut self.values, Values::Memory(values)) {
            part.remove();
        }
    }

    /// Goes on in memory because `error` happened to the file, and says so later on. An image will have `image_len` values.
    ///
    /// # Errors
    /// `error`, where memory does not suffice for all images: then the file stays, for a second try.
    fn hold(&mut self, image_len: usize, error: Error) -> Result<()> {
        let needed = self.len.saturating_mul(image_len) as u64;
        let fits = memory::machine().is_none_or(|memory| needed <= memory.available);
        let values = match &self.values {
            Values::File(part) if fits => part.values(),
            _ => None,
        };
        let Some(values) = values else {
            return Err(error);
        };
        self.replace(values);
        self.uncached = Some(error);
        Ok(())
    }

    /// Makes gray images colour ones.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn make_rgb(&mut self, shape: [usize; 3]) -> Result<()> {
        let image_len = shape.iter().product::<usize>().max(1);
        if let Values::File(part) = &mut self.values {
            match part.make_rgb() {
                Ok(()) => return Ok(()),
                Err(error) => self.hold(3 * image_len, error)?,
            }
        }
        if let Values::Memory(values) = &mut self.values {
            let images = values.chunks(image_len);
            *values = images.flat_map(|image| image.repeat(3)).collect();
        }
        Ok(())
    }

    /// The images of three parts of the listing, of these lengths and one after the other, each in the order of its
    /// places and without those that are `missing`; none unless each other place has one image.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn split(
        &mut self,
        shape: [usize; 3],
        lengths: [usize; 3],
        missing: &[usize],
    ) -> Result<Option<Sorted>> {
        let mut arrival = vec![None; self.len];
        for (arrived, &place) in self.places.iter().enumerate() {
            match arrival.get_mut(place) {
                Some(free @ None) => *free = Some(arrived),
                _ => return Ok(None),
            }
        }
        let is_missing = |place: usize| missing.binary_search(&place).is_ok();
        let whole =
            |(place, arrived): (usize, &Option<usize>)| arrived.is_none() == is_missing(place);
        if !arrival.iter().enumerate().all(whole) {
            return Ok(None);
        }
        let mut block = None;
        if let Values::File(part) = &mut self.values {
            match part.save().and_then(|()| part.map()) {
                Ok(mapped) => block = Some(mapped),
                Err(error) => self.hold(shape.iter().product(), error)?,
            }
        }
        let (block, part) = match std::mem::replace(&mut self.values, Values::Memory(Vec::new())) {
            Values::Memory(values) => (Block::Memory(values), None),
            Values::File(part) => (block.expect("mapped above"), Some(part)),
        };
        let block = Arc::new(block);
        let mut rest = arrival.as_slice();
        let images = lengths.map(|length| {
            let own;
            (own, rest) = rest.split_at(length);
            Images::stored(block.clone(), own.iter().flatten().copied(), shape)
        });
        Ok(Some(Sorted { images, part }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(place: usize) -> Seen {
        Seen {
            place,
            found: [1, 2],
            channels: 1,
            scaled_down: false,
            turned: false,
        }
    }

    fn add(arrived: &mut Arrived, place: usize, image: &[u8]) {
        arrived.add(seen(place), image, "set").expect("memory");
    }

    #[test]
    fn images_are_sorted_whatever_the_order_in_which_they_arrive() {
        let images = [[1, 1], [2, 2], [3, 3], [4, 4], [5, 5]];
        for order in [
            [0, 1, 2, 3, 4],
            [4, 3, 2, 1, 0],
            [1, 2, 0, 4, 3],
            [3, 0, 4, 2, 1],
        ] {
            let mut arrived = Arrived::new(5);
            for place in order {
                add(&mut arrived, place, &images[place]);
            }
            let split = arrived.split([1, 1, 2], [3, 0, 2], &[]).unwrap().unwrap();
            let split = split.images.map(|images| images.pixels());
            assert_eq!(split, [images[..3].concat(), vec![], images[3..].concat()]);
        }
        for (places, missing) in [
            (&[0][..], &[][..]),
            (&[0, 0], &[]),
            (&[0, 2], &[]),
            (&[0, 1, 1], &[]),
            (&[0, 1], &[1]),
        ] {
            let mut arrived = Arrived::new(2);
            places
                .iter()
                .for_each(|&place| add(&mut arrived, place, &[1, 1]));
            assert!(
                arrived
                    .split([1, 1, 2], [2, 0, 0], missing)
                    .unwrap()
                    .is_none(),
                "{places:?}"
            );
        }
    }

    #[test]
    fn images_of_a_file_that_takes_no_more_are_in_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        for channels in [1, 3] {
            let mut arrived = Arrived::new(3);
            arrived.continue_in(Box::new(Part::full(folder.path())));
            add(&mut arrived, 2, &[2, 12]);
            if channels == 3 {
                arrived.make_rgb([1, 1, 2]).expect("memory");
                assert!(arrived.uncached.is_some());
            }
            add(&mut arrived, 1, &[1, 11].repeat(channels));
            let sorted = arrived.split([channels, 1, 2], [3, 0, 0], &[]);
            let sorted = sorted.expect("memory").expect("all of them");
            let expected = [[0, 10], [1, 11], [2, 12]].map(|image| image.repeat(channels));
            assert_eq!(sorted.images[0].pixels(), expected.concat());
            assert!(sorted.part.is_none() && arrived.uncached.is_some());
            assert_eq!(std::fs::read_dir(folder.path()).expect("it").count(), 0);
        }
    }

    #[test]
    fn memory_is_claimed_by_images_that_are_there() {
        let capacity = |arrived: &Arrived| match &arrived.values {
            Values::Memory(values) => values.capacity(),
            Values::File(_) => 0,
        };
        // Listed: 2^62 images, of which one is there.
        let mut arrived = Arrived::new(1 << 62);
        add(&mut arrived, 0, &[0; 100]);
        assert!(capacity(&arrived) <= CLAIM);
        let mut few = Arrived::new(3);
        [2, 0, 1]
            .into_iter()
            .for_each(|place| add(&mut few, place, &[0; 100]));
        assert_eq!(capacity(&few), 300);
    }
}

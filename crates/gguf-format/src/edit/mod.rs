//! Editing: what a file will hold, changed key by key and tensor by tensor, then written whole.

mod merge;
mod split;

pub use split::{Part, Split, SplitLimit, SplitRule};

use crate::header::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT};
use crate::plan::{refused, refused_tensor};
use crate::{
    ByteOrder, Error, GgmlType, Gguf, GgufWriter, Metadata, Result, SizedTensor, TensorInfo, TensorSpec, Value,
    WritePlan, can_swap_tensor_bytes, swap_tensor_bytes,
};
use std::borrow::Cow;
use std::path::Path;

/// The content of a file to be: keys and values, and tensors whose data are borrowed from open files or owned.
///
/// Nothing is written before [`Edit::write`], which goes through a temporary file: the target may be the very file that is edited. What is
/// not changed is copied byte for byte, in its order. The layout is always the one ggml's reader takes: version 3, tensors one after the other
/// in the order of the header, each padded with zeros. So an edit without a change gives a file of that layout back to the byte, and
/// mends one with gaps, another order, or padding missing at the end.
///
/// ```
/// # use gguf_format::{GgmlType, Gguf, Limits, Metadata, TensorSpec, WritePlan};
/// # let mut metadata = Metadata::new();
/// # metadata.set("general.name", "a");
/// # let spec = TensorSpec { name: "w".into(), shape: vec![8], ty: GgmlType::F32 };
/// # let bytes = WritePlan::new(&metadata, &[spec])?.to_bytes(&[&[0; 32]])?;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.gguf");
/// # std::fs::write(&path, &bytes)?;
/// use gguf_format::Edit;
/// let file = Gguf::open(&path)?;
/// let mut edit = Edit::of(&file);
/// edit.set("general.name", "b").set("general.tags", ["small", "test"]);
/// edit.rename_tensor("w", "output.weight")?;
/// edit.write(&path)?; // over the file itself
/// assert_eq!(Gguf::open(&path)?.metadata().need_str("general.name")?, "b");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Edit<'a> {
    byte_order: ByteOrder,
    metadata: Metadata,
    tensors: Vec<EditedTensor<'a>>,
}

/// A tensor of an [`Edit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditedTensor<'a> {
    /// Name, shape (rows first), type.
    pub spec: TensorSpec,
    /// The data, in `byte_order`.
    pub data: Cow<'a, [u8]>,
    /// Byte order of the numbers in the data as they are here; the file gets its own.
    pub byte_order: ByteOrder,
}

impl<'a> EditedTensor<'a> {
    fn of<S: AsRef<[u8]>>(file: &'a Gguf<S>, info: &TensorInfo) -> Self {
        Self { spec: info.into(), data: Cow::Borrowed(file.data(info)), byte_order: file.byte_order() }
    }

    fn little(spec: TensorSpec, data: impl Into<Cow<'a, [u8]>>) -> Self {
        Self { spec, data: data.into(), byte_order: ByteOrder::Little }
    }

    /// Gives the data to `to`, piece by piece, in the byte order of the file.
    fn in_order(&self, order: ByteOrder, mut to: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        if order == self.byte_order || self.data.is_empty() {
            return to(&self.data);
        }
        // Pieces of whole blocks of any type of known size, none of which has a block above 1 KiB.
        let block = self.spec.ty.layout().map_or(1, |layout| layout.block_bytes.max(1) as usize);
        let mut piece = Vec::new();
        for part in self.data.chunks(block * 4096) {
            piece.clear();
            piece.extend_from_slice(part);
            let in_tensor = |e: Error| refused_tensor(&self.spec.name, e.to_string());
            swap_tensor_bytes(self.spec.ty, &mut piece).map_err(in_tensor)?;
            to(&piece)?;
        }
        Ok(())
    }

    fn sized(&self) -> SizedTensor {
        SizedTensor { spec: self.spec.clone(), byte_len: self.data.len() as u64 }
    }
}

impl<'a> Edit<'a> {
    /// Everything in `file`, as it is.
    pub fn of<S: AsRef<[u8]>>(file: &'a Gguf<S>) -> Self {
        let tensors = file.tensors().iter().map(|info| EditedTensor::of(file, info)).collect();
        Self { byte_order: file.byte_order(), metadata: file.metadata().clone(), tensors }
    }

    /// The byte order that the file will have.
    pub fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// Turns the file to another byte order: header and the numbers in the tensors' blocks ([`swap_tensor_bytes`]).
    ///
    /// # Errors
    /// [`Error::Refused`] if a tensor that would have to be turned has a type whose blocks are not known.
    pub fn set_byte_order(&mut self, order: ByteOrder) -> Result<()> {
        let unknown =
            |t: &&EditedTensor<'_>| t.byte_order != order && !can_swap_tensor_bytes(t.spec.ty) && !t.data.is_empty();
        if let Some(tensor) = self.tensors.iter().find(unknown) {
            let reason = format!("the byte order of {} is not known", tensor.spec.ty);
            return Err(refused_tensor(&tensor.spec.name, reason));
        }
        self.byte_order = order;
        Ok(())
    }

    /// Keys and values as they will be.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The tensors as they will be, in order.
    pub fn tensors(&self) -> &[EditedTensor<'a>] {
        &self.tensors
    }

    /// Sets a key: in its place if it is there, else as the last one. `general.alignment` is what the tensors will be padded to.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.metadata.set(key, value);
        self
    }

    /// Removes a key; the others keep their order.
    ///
    /// # Errors
    /// [`Error::MissingKey`].
    pub fn remove(&mut self, key: &str) -> Result<Value> {
        self.metadata.remove(key).ok_or_else(|| Error::MissingKey { key: key.into() })
    }

    /// Gives a key another name, in its place.
    ///
    /// # Errors
    /// [`Error::MissingKey`] without `old`, [`Error::Refused`] if there is a key `new` already.
    pub fn rename(&mut self, old: &str, new: &str) -> Result<()> {
        if !self.metadata.contains_key(old) {
            return Err(Error::MissingKey { key: old.into() });
        }
        if old != new && self.metadata.contains_key(new) {
            return Err(refused(format!("key `{new}`"), format!("it is there already, `{old}` cannot become it")));
        }
        let mut renamed = Metadata::new();
        for (key, value) in self.metadata.iter() {
            renamed.set(if key == old { new } else { key }, value.clone());
        }
        self.metadata = renamed;
        Ok(())
    }

    /// Pads tensors to a multiple of `alignment` bytes. Asking for what the file has already, or for 32 where no key says otherwise, changes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] unless it is a power of two.
    pub fn set_alignment(&mut self, alignment: u32) -> Result<()> {
        if !alignment.is_power_of_two() {
            return Err(refused(format!("key `{ALIGNMENT_KEY}`"), format!("{alignment} is not a power of two")));
        }
        if self.metadata.contains_key(ALIGNMENT_KEY) || u64::from(alignment) != DEFAULT_ALIGNMENT {
            self.metadata.set(ALIGNMENT_KEY, alignment);
        }
        Ok(())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|t| t.spec.name == name)
    }

    fn need_place(&self, name: &str) -> Result<usize> {
        self.place(name).ok_or_else(|| Error::MissingTensor { name: name.into() })
    }

    /// Gives a tensor another name, in its place.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] without `old`, [`Error::Refused`] if there is a tensor `new` already.
    pub fn rename_tensor(&mut self, old: &str, new: &str) -> Result<()> {
        let at = self.need_place(old)?;
        if self.place(new).is_some_and(|other| other != at) {
            return Err(refused_tensor(new, format!("it is there already, `{old}` cannot become it")));
        }
        self.tensors[at].spec.name = new.into();
        Ok(())
    }

    /// Removes a tensor; the others keep their order.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn remove_tensor(&mut self, name: &str) -> Result<EditedTensor<'a>> {
        let at = self.need_place(name)?;
        Ok(self.tensors.remove(at))
    }

    /// Gives a tensor other data, little endian, in its place. `shape` is rows first; whether the length of the data fits shape and type is checked when
    /// the file is planned.
    ///
    /// # Errors
    /// [`Error::MissingTensor`].
    pub fn replace_tensor(
        &mut self,
        name: &str,
        ty: GgmlType,
        shape: &[u64],
        data: impl Into<Cow<'a, [u8]>>,
    ) -> Result<()> {
        let at = self.need_place(name)?;
        let spec = TensorSpec { name: name.into(), shape: shape.into(), ty };
        self.tensors[at] = EditedTensor::little(spec, data);
        Ok(())
    }

    /// [`Edit::replace_tensor`] with type, shape and data of the tensor `source` of another file, of whatever byte order.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] of either file.
    pub fn replace_tensor_from<S: AsRef<[u8]>>(&mut self, name: &str, file: &'a Gguf<S>, source: &str) -> Result<()> {
        let at = self.need_place(name)?;
        let mut tensor = EditedTensor::of(file, file.need_tensor(source)?);
        tensor.spec.name = name.into();
        self.tensors[at] = tensor;
        Ok(())
    }

    /// Adds a tensor behind the others. Its data are little endian.
    ///
    /// # Errors
    /// [`Error::Refused`] if the name is in use.
    pub fn add_tensor(&mut self, spec: TensorSpec, data: impl Into<Cow<'a, [u8]>>) -> Result<()> {
        if self.place(&spec.name).is_some() {
            return Err(refused_tensor(&spec.name, "it is there already"));
        }
        self.tensors.push(EditedTensor::little(spec, data));
        Ok(())
    }

    /// Checks everything and tells the size of the file, without writing it.
    ///
    /// # Errors
    /// [`Error::Refused`], as [`WritePlan::sized`].
    pub fn plan(&self) -> Result<WritePlan> {
        plan(self.byte_order, &self.metadata, &self.tensors)
    }

    /// Writes the file: to a temporary one beside `path`, synced, then renamed over it. Returns its size.
    ///
    /// # Errors
    /// [`Error::Refused`] as [`Edit::plan`], [`Error::Io`]; the target is then as it was.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<u64> {
        let path = path.as_ref();
        let plan = self.plan().map_err(|e| e.in_file(path))?;
        let mut writer = GgufWriter::from_plan(path, plan)?;
        write_data(&mut writer, self.byte_order, &self.tensors)?;
        writer.finish()
    }

    /// The file in memory.
    ///
    /// # Errors
    /// [`Error::Refused`], as [`Edit::plan`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let plan = self.plan()?;
        let turned = |tensor: &EditedTensor<'a>| {
            let mut data = Vec::with_capacity(tensor.data.len());
            tensor.in_order(self.byte_order, |piece| {
                data.extend_from_slice(piece);
                Ok(())
            })?;
            Ok(data)
        };
        let data: Vec<Vec<u8>> = self.tensors.iter().map(turned).collect::<Result<_>>()?;
        plan.to_bytes(&data.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }
}

fn plan(order: ByteOrder, metadata: &Metadata, tensors: &[EditedTensor<'_>]) -> Result<WritePlan> {
    let sized: Vec<SizedTensor> = tensors.iter().map(EditedTensor::sized).collect();
    WritePlan::in_order(order, metadata, &sized)
}

fn write_data(writer: &mut GgufWriter, order: ByteOrder, tensors: &[EditedTensor<'_>]) -> Result<()> {
    tensors.iter().try_for_each(|tensor| tensor.in_order(order, |piece| writer.write(piece)))
}
